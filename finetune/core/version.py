"""The version, for all rooms: the package itself, which has it too, opens every one of them."""

VERSION = "0.1.0"
