"""Where the spread between seeds comes from, and what is known against it."""
