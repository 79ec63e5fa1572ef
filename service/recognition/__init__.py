"""Recognition of emotions in files, long recordings and live streams; independent of HTTP."""
