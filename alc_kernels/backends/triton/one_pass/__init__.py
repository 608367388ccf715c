"""The loss and its gradient in one walk over S, for bases whose weights need no second one."""
