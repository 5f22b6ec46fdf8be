"""How peft's methods are used. Its modules need torch and peft, and the strategy imports them late."""
