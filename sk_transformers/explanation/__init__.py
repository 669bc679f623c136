"""Pictures and numbers of what a trained network looks at."""
