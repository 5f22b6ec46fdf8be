"""Tasks: what is learnt or scored. One file per task; `base.py` says what a task is."""
