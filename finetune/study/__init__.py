"""One recipe: its variants under its seeds, in a folder that says what they stand on."""
