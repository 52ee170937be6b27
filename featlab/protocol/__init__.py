"""Who is source and who is target; which rows adapt and which test."""
