"""POPGym: memories on tasks that need one."""
