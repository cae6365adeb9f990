"""What the pages of docs/ have from the code; one file for each subject."""
