"""A page to try networks on, side by side, and see what they attend to; it travels into a Space as it is.

page       the page, in Gradio
dense      what segmenters and detectors say, over the image
mechanism  attention weights and keys of a network on an image
pictures   weights and keys as images, and images as HTML
space      folders for the Hub: a Space of the page, and a static page that runs in the browser
browser/   that static page

In a Space this package is not installed: `space.PAGE_FILES` lists what it holds copies of.
"""
