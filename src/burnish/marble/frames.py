"""What stands around the facts in a document: invented people, headings, openings, links.

Nothing here states a fact of the tables. `{who}`, `{other}` and `{place}` are filled with invented
names, `{label}` with a relation's label, `{clause}` with a statement that starts in lower case.
"""

from __future__ import annotations

PEOPLE = (
    "Ada", "Bruno", "Clara", "Dimitri", "Elsa", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Katya", "Leo",
    "Mina", "Nils", "Olga", "Pedro", "Rosa", "Samir", "Tilda", "Umar", "Vera", "Walter", "Yusuf", "Zoe",
)  # fmt: skip

PLACES = (
    "the library", "the kitchen", "the night train", "the old school", "the garden", "the reading room",
    "the waiting room", "the harbour", "the attic", "the bookshop", "the museum", "the tea house",
)  # fmt: skip

OPENINGS = (
    "Indeed, ", "In short, ", "As the book says, ", "As is well known, ", "To begin with, ", "Besides, ",
    "By the way, ", "In fact, ", "As far as we know, ", "Of course, ", "To repeat: ", "Note: ", "Moreover, ",
    "According to {who}, ", "As {who} says, ", "Once more, ",
)  # fmt: skip

TOPICS = (
    "Let us turn to {entity}.",
    "Next in the book comes {entity}.",
    "{who} had marked the page about {entity}.",
    "A few words about {entity}.",
    "Then there is {entity}.",
    "{who} wanted to hear about {entity}.",
    "This page is about {entity}.",
    "We come to {entity}.",
    "About {entity}:",
    "Now for {entity}.",
    "On {entity} and the {label}.",
    "Next: {entity} ({label}).",
    "{who} had written {entity} in the margin, and under it, {label}.",
    "The subject is the {label}, the case is {entity}.",
)

PAIRS = (
    "Let us set {one} beside {two}.",
    "{who} looked at {one} and {two}.",
    "Here are {one} and {two}.",
    "On {one} and {two}:",
    "One page is about {one}, the next about {two}.",
    "",
    "",
)

CLAUSES = (
    "It is well known that {clause}",
    "Everyone at the table knew that {clause}",
    "It says in the book that {clause}",
    "One should remember that {clause}",
    "{who} read aloud that {clause}",
    "{who} noted that {clause}",
    "{who} was sure that {clause}",
    "{who} explained to {other} that {clause}",
    "{who} had always known that {clause}",
    "On the next page it said that {clause}",
)

STORY_OPENINGS = (
    "{who} and {other} sat in {place} with a thick book between them.",
    "It rained all day, and {who} stayed in {place} with an old encyclopedia.",
    "{who} was learning for the spring test in {place}.",
    "In {place}, {who} found a notebook that had once belonged to {other}.",
    "The journey was long, so {who} and {other} told each other what they knew.",
    "{who} had promised to help {other} with the homework.",
    "Every evening {who} wrote down what the day had taught.",
    "Nobody in {place} knew more than {who}.",
)

STORY_LINKS = (
    "{who} turned the page.",
    "{other} nodded.",
    "Outside it began to snow.",
    "{who} wrote it down.",
    "They went on reading.",
    "{other} poured some more tea.",
    "That was new to {other}.",
    "Then they came to the next line.",
)

STORY_ENDINGS = (
    "Then {who} closed the book.",
    "{other} thanked {who} and went home.",
    "By then it was late, and the lamp was put out.",
    "They would go on tomorrow.",
    "",
)

LETTER_OPENINGS = (
    "Dear {who},\nthank you for your letter. Here is what I have learned this week.",
    "Dear {who},\nI am writing to you from {place}. You wanted to hear what is in my notebook.",
    "My dear {who},\nthe course goes well, and I know much more than last month.",
    "Dear {who} and {other},\nhere are my notes, as I promised.",
)

LETTER_ENDINGS = (
    "Yours, {other}",
    "With love, {other}",
    "Write soon. Yours, {other}",
    "See you in spring. {other}",
)

PROSE_HEADINGS = (
    "Notes", "From the notebook of {who}", "Things to remember", "A page of facts", "What we know", "Lesson",
    "Reading for today", "Knowledge of the day", "", "", "",
)  # fmt: skip

LABEL_HEADINGS = (
    "{Label}", "On the subject of {label}", "A survey: {label}", "Chapter: {label}", "{Label}, some cases",
    "", "",
)  # fmt: skip

LIST_HEADINGS = ("{Label}", "List: {label}", "By {label}", "Overview of {label}", "Index ({label})")

COMPARISONS = (
    "While {clause}, {other_clause}.",
    "It is true that {clause}, and that {other_clause}.",
    "Just as {clause}, so {other_clause}.",
    "Whereas {clause}, {other_clause}.",
    "Note that {clause}; likewise, {other_clause}.",
)

QUIZ_HEADINGS = (
    "Quiz", "Questions", "Test", "Exercise", "Homework", "Quiz night at {place}", "Questions for {who}",
    "Riddles", "Examination paper", "Review questions", "Trivia", "Questions prepared by {who}", "Warm-up",
    "For discussion",
    "", "", "", "", "",
)  # fmt: skip

QUIZ_NOTES = (
    "Write on a separate sheet.", "You have ten minutes.", "No books, please.", "Work in pairs.",
    "Each question is worth one point.", "Hand in your sheet to {who}.", "Use a pencil.", "", "", "",
)  # fmt: skip

WONDER_OPENINGS = (
    "{who} was full of questions.", "There is so much that one could ask.", "Children ask all day long.",
    "On the way to {place}, {who} wondered about many things.", "Some questions for a long evening.",
    "", "", "",
)  # fmt: skip

WONDER_LINKS = ("And", "Or", "Also,", "And then,", "Next,", "", "", "", "", "")

WONDER_ENDINGS = (
    "So many questions, and such a short evening.", "{who} fell asleep before the list was over.",
    "They kept on asking until {place} closed.", "", "", "",
)  # fmt: skip
