"""What is found out about data by reading it: samples that two splits share, and what two versions differ in."""
