"""Files that somebody made to do harm, by what reads them."""
