"""What is asked, by kind of task: each makes questions of rows, and has the trained model answer them."""
