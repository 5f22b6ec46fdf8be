"""Programs that answer questions with an export as its users would. Each is run by its file, alone, and imports nothing
of `finetune`, so that what it says is what the export says."""
