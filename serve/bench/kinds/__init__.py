"""One kind of result a file: its rows and their reader, its section of the page, its sentences, its tables."""
