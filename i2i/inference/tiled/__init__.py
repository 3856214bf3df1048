"""Images of any size within a memory limit, with the result of the whole image."""
