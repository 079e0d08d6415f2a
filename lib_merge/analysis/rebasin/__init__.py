"""Git Re-Basin: finds the permutations of one model's channels that fit another's.

It looks at two whole models at once and follows channels from tensor to tensor, which
no merge method of `methods/` can, as those see one tensor at a time. So it is a step of
its own: B aligned to A becomes a checkpoint, which computes what B does and which every
merge method can then blend with A.
"""
