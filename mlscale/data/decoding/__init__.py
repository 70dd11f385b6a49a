"""Image files to pixels, without torch: formats, orientation, resizing; what servers, readers and folders share."""
