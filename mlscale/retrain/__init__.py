"""One turn of the closed loop: window, challenger, paired test, promotion or rejection, journal."""
