"""Tasks of EleutherAI's lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness), which
bring their documents, prompts and metrics: a recipe names them in `lm_eval`, and they are scored, never learnt."""
