"""From a user's table to the posterior of a group.

The way of a table, module by module: `read` (files and frames become rows), `columns`, `targets`
and `groups` (columns become numbers, rows become groups), `checked` (all that can be wrong with a
table), `fitting` (a checked table becomes a `trained` prior, by `members` and `learn`), `prior`
(the front door), `posterior` (one group, one target) and `several` (one group, several targets).
`judging` and `compare` say how good it is.
"""
