"""One module for each dependency whose behaviour is mended here."""
