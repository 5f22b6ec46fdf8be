"""What `scripts/benchmark` runs: ours and its peers, side by side, on the same data, model, batch and examples.

__main__.py    arguments, the order of the measurements, and what is printed: start reading here
jobs.py        what is compared: the cases, the contestants of each with all their settings, the targets, the sizes
corpus.py      finds RTE and GSM8K, and writes the examples that every contestant gets
measure.py     a command in a fresh process: its seconds and its peak memory
choosing.py    which settings are a peer's best on this machine, found out by measuring them
contest.py     one measurement: which programs a contestant runs, and which figures and scores come of it
ours.py        recipes for `finetune run`, and what a finished study's files say
record.py      benchmark.json: every raw measurement, added as soon as it is there
table.py       ratios, scores and targets, in words and columns

programs/      what runs in the fresh processes, each a small script of its own:
  prepare.py         the models as folders that every contestant loads, and what this machine is
  trainer.py         transformers' Trainer (and peft), trained and scored once
  trl.py             TRL's SFTTrainer, trained once
  answers.py         loss per answer token of an adapter, computed the same way whoever trained it
  scoring.py         scoring a classifier: ours, transformers' pipeline, transformers' Trainer
"""
