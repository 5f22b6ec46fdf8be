"""The results of a study: read from its run folders, computed into typed results, without torch."""
