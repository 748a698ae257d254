"""A board that the system's OpenSSH reaches: its address, a connection to it, files that go over and come back."""
