"""The card of a repo: from a template, completed and merged with what stands on the Hub.

card        a card from facts and the template: of training, origin and repo
diagram     the drawing of the network on it
completion  what a push adds: evaluations, examples, a tag
merge       edits made on the Hub survive the next push
"""
