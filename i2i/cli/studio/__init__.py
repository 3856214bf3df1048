"""i2i studio: a page in the browser over the other commands."""
