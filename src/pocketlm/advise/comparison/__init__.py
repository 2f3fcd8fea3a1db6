"""Models side by side: what they are, what they take, how fast they are, what others scored them.

comparison   ``compare``: refs to records, all that is known and nothing that is guessed
scores       published scores, only where one table has several of the models
measuring    this device's speed and loss for the models that are here
trying       one prompt to every model, answers as they come
layout       the records as tables of texts, which the writers below share
console, markdown, page, charts   a terminal, Markdown, one HTML file and its pictures
"""
