"""Plans -> outputs and gradients.

attention      the callable: checks what it is given, plans, and runs; `planning` finds the plan, `cache` keeps it
planned        a planned call without autograd: forward and gradients; `reorder` moves tokens to a plan's order and back
op             the boundary to autograd of a planned call; `backend` says what a backend is, `dispatch` which one there is
traced         the boundary to torch.compile, export and torch.func: a whole call as one operator, planned within; `flat` makes its
               arguments, `folding` is its vmap

the backend in torch alone:
tiled          which of its two designs does a call; `tiled_plan` is a plan as both read it, `tiled_products` what both compute alike
tiled_rows     plain matmuls, a row of tiles at a time, any device
rectangles     the design for CPUs (`tiled_rectangles`): tiles gathered into pieces; `patterns` keeps their masks, `cpu_flash` is the operator on them
members        the (batch, head) pairs that share a plan

the Triton backend, in the order of a call:
target         what can be done, and what it is compiled for; `configs` is the table of tiles
emit           IR -> source of the predicate; `predicates` makes a module of it
packing        plan -> what the kernels read; `buffers` holds the tensors
launch         one call's launches; `run` is one launch; `offline` compiles without a card
triton_*       the kernels
"""
