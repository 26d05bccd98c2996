"""What each backend serves: the rows of the table, the table, and how it is filled.

example    a feature, as one small call
texts      the rows about what a text may say
calls      the rows about a call: its arguments, its tensors, options, and what torch may do with it
table      the table, printed and as JSON
asking     the table filled: every backend is asked by the code that decides at a call
"""
