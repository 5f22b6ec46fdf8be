"""What learning from pairs of texts is made of: the rows that are drawn together, losses over them, and ranks."""
