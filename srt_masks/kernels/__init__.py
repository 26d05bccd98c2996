"""Plans -> outputs and gradients.

attention      the callable: checks what it is given, plans, calls the operator
op             the boundary to autograd; `backend` says what a backend is, `dispatch` which one there is
tiled          plain torch, any device

the Triton backend, in the order of a call:
target         what can be done, and what it is compiled for; `configs` is the table of tiles
emit           IR -> source of the predicate; `predicates` makes a module of it
packing        plan -> what the kernels read; `buffers` holds the tensors
launch         one call's launches; `run` is one launch; `offline` compiles without a card
triton_*       the kernels
"""
