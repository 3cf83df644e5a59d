"""The commands, one file for each subject.  None holds logic of syncing: they ask, and show."""
