"""The run folder: read and written only here."""
