"""Where the time of a run goes, stage by stage, beside what the machine can do at most."""
