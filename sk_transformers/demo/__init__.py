"""A page to try networks on, side by side, and see their mechanism; it travels into a Space as it is."""
