"""What the fixes of errors say to type, read from the source and from errors that tests raise, and checked."""
