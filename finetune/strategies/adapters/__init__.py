"""The use of peft's methods. Its modules need torch and peft, and the strategy imports them late."""
