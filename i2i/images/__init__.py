"""Images as files, arrays and tensors: formats, decoding, encoding and conversion."""
