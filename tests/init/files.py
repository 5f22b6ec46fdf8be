"""Thirty files as people have them, made from seeds: every kind of task, eight formats, and what leads astray in them.

Each says what it is for, and which of its columns are read and learnt. The rules of `finetune.init` do not know them.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PEOPLE = ["Anna", "Omar", "Lucia", "Peter", "Mina", "Jonas", "Sofia", "Ravi", "Clara", "Tom"]
PLACES = ["Lisbon", "Oslo", "Nairobi", "Lima", "Kyoto", "Vienna", "Cairo", "Boston"]
COMPANIES = ["Northwind", "Acme Labs", "Blue Harbor", "Solaris", "Tandem Foods"]
THINGS = ["phone", "kettle", "jacket", "laptop", "blender", "lamp", "suitcase", "camera", "desk", "headset"]
DEPARTMENTS = {
    "billing": ["invoice", "charged twice", "refund", "credit card", "payment failed", "receipt", "price on my bill"],
    "shipping": ["parcel", "delivery", "courier", "tracking number", "arrived late", "wrong address", "package"],
    "technical": ["error message", "crashes", "password reset", "update", "blue screen", "login page", "bluetooth"],
    "sales": ["discount", "bulk order", "quote", "availability", "catalogue", "trial", "upgrade plan"],
}
GOOD = ["love it", "works perfectly", "great value", "very happy", "excellent quality", "would buy again", "superb"]
FINE = ["it is okay", "does the job", "average", "nothing special", "acceptable for the price", "mixed feelings"]
POOR = ["broke after a week", "total waste", "very disappointed", "poor quality", "would not recommend", "awful"]
LINKS = ["by the way", "as far as I can see", "to be honest", "since last month", "at the moment", "for my family"]


class Writer:
    """Writes sentences of its own."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def any(self, words):
        return self.rng.choice(list(words))

    def filler(self):
        forms = [
            f"{self.any(PEOPLE)} told me about the {self.any(THINGS)} in {self.any(PLACES)}",
            f"I ordered the {self.any(THINGS)} {self.any(LINKS)}",
            f"we have used our {self.any(THINGS)} for {self.rng.randint(2, 30)} days",
            f"my {self.any(THINGS)} came with a second {self.any(THINGS)}",
            f"{self.any(LINKS)}, the {self.any(THINGS)} of {self.any(COMPANIES)} is what I needed",
        ]
        return self.any(forms)

    def text(self, phrases, least=1, most=3, sure=0.9):
        """Some sentences, of which one or two have one of the ``phrases``."""
        parts = [self.filler() for _ in range(self.rng.randint(least, most))]
        if self.rng.random() < sure:
            parts.insert(self.rng.randint(0, len(parts)), self.any(phrases))
        return ". ".join(part[0].upper() + part[1:] for part in parts) + "."

    def ticket(self):
        name = self.any(DEPARTMENTS)
        phrase = self.any(DEPARTMENTS[name])
        return name, self.text(
            [f"there is something about the {phrase}", f"{phrase} again", f"please look at my {phrase}"]
        )

    def review(self, level):
        """``level`` from 1 to 5."""
        near = {1: POOR, 2: POOR + FINE, 3: FINE, 4: GOOD + FINE, 5: GOOD}[level]
        return self.text(near, 1, 2, 0.95)


@dataclass(frozen=True)
class File:
    """A prepared file."""

    name: str
    write: Callable[[Path, Writer], Path]
    task: str
    read: set
    answer: set
    traps: tuple = ()
    family: str | None = None
    group: str | None = None
    ordinal: bool = False


FILES: list[File] = []


def prepared(task, read, answer=(), *, traps=(), family=None, group=None, ordinal=False):
    """Add what a function writes to the files."""

    def add(write):
        known = (task, {*read}, {*answer}, traps, family, group, ordinal)
        FILES.append(File(write.__name__, write, *known))
        return write

    return add


def table(path, header, rows, delimiter=","):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
        writer.writerows([*([header] if header else []), *rows])
    return path


def lines(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


@prepared("classification", ["message"], ["team"], traps=("index column",))
def saved_by_pandas(folder, w):
    rows = [(number, *reversed(w.ticket())) for number in range(260)]
    return table(folder / "messages.csv", ["", "message", "team"], rows)


@prepared("classification", ["subject", "body"], ["queue"], traps=("ids", "several text columns"))
def tickets_with_subjects(folder, w):
    rows = []
    for number in range(300):
        name, body = w.ticket()
        subject = f"{w.any(DEPARTMENTS[name])}: {w.any(THINGS)} from {w.any(PLACES)}, {w.any(LINKS)}"
        body = f"{body} {w.text(DEPARTMENTS[name], 5, 8)}"
        rows.append((uuid.UUID(int=w.rng.getrandbits(128)), f"2024-03-{number % 28 + 1:02}", subject, body, name))
    return table(folder / "tickets.tsv", ["ticket_id", "created", "subject", "body", "queue"], rows, "\t")


@prepared("classification", ["text"], ["department"], traps=("leaks", "ids"))
def leaking_tickets(folder, w):
    rows = []
    for number in range(280):
        name, text = w.ticket()
        note = w.any([f"Handed over to {name} by {w.any(PEOPLE)}", f"{w.any(PEOPLE)} closed it for {name} in the end"])
        address = f"{name}-desk@corp.example"
        rows.append(
            {"id": 10_000 + 7 * number, "text": text, "mailbox": address, "agent_note": note, "department": name}
        )
    return lines(folder / "support.jsonl", rows)


@prepared("classification", ["comment"], ["flagged"], traps=("imbalanced labels", "ids"))
def rare_flags(folder, w):
    flags = [w.rng.random() < 0.06 for _ in range(600)]
    texts = [w.text(["you are an idiot", "shut up", "I hate you all"] if bad else GOOD, sure=0.97) for bad in flags]
    content = {"comment_id": [f"c{w.rng.getrandbits(40):x}" for _ in flags], "comment": texts, "flagged": flags}
    pq.write_table(pa.table(content), folder / "comments.parquet")
    return folder / "comments.parquet"


@prepared("classification", ["text"], ["label"])
def folder_of_classes(folder, w):
    for number in range(120):
        name, text = w.ticket()
        place = folder / "mail" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03}.txt").write_text(f"{w.filler()}\n\n{text}\n", encoding="utf-8")
    return folder / "mail"


@prepared("classification", ["report"], ["outcome"], traps=("long texts",), group="patient")
def long_reports(folder, w):
    rows = []
    for number in range(160):
        good = w.rng.random() < 0.5
        said = ["recovered well", "no complaints"] if good else ["pain got worse", "readmitted"]
        text = f"{w.text(said, 40, 70, 1.0)} {w.text(said, 10, 20, 1.0)}"
        rows.append({"patient": f"P{number % 60:03}", "report": text, "outcome": "improved" if good else "worse"})
    return lines(folder / "reports.jsonl", rows)


@prepared(
    "classification",
    ["premise", "hypothesis"],
    ["label"],
    traps=("several text columns", "numbers as labels"),
    group="premise",
)
def inference_with_codes(folder, w):
    rows = []
    for number in range(300):
        person, place, thing = w.any(PEOPLE), w.any(PLACES), w.any(THINGS)
        label = w.rng.randint(0, 2)
        said = [
            f"{person} bought a {thing}",
            f"{person} likes the weather in {place}",
            f"{person} never bought a {thing}",
        ]
        rows.append((number, f"{person} bought a new {thing} while staying in {place}", said[label], label))
    return table(folder / "nli.tsv", ["idx", "premise", "hypothesis", "label"], rows, "\t")


@prepared("classification", ["review"], ["stars"], traps=("numbers as labels",), ordinal=True)
def stars(folder, w):
    levels = [w.any([1, 2, 3, 4, 5, 5]) for _ in range(500)]
    rows = [(w.review(level), level, w.any(PLACES)) for level in levels]
    return table(folder / "stars.csv", ["review", "stars", "city"], rows)


@prepared("classification", ["utterance"], ["label"], traps=("numbers as labels",))
def coded_intents(folder, w):
    topics = [f"{verb} {thing}" for verb in ("return", "repair") for thing in THINGS]
    codes = list(range(len(topics)))
    w.rng.shuffle(codes)
    picked = [w.rng.randrange(len(topics)) for _ in range(700)]
    rows = [(f"How can I {topics[place]} that I bought in {w.any(PLACES)}?", codes[place]) for place in picked]
    return table(folder / "intents.csv", ["utterance", "label"], rows)


@prepared("regression", ["essay"], ["grade"], traps=("numbers as labels", "ids"))
def graded_essays(folder, w):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["student_no", "essay", "grade"])
    for number in range(200):
        level = w.rng.randint(1, 5)
        grade = round(min(max(level + w.rng.gauss(0, 0.4), 0), 6), 1)
        book.active.append([f"S-{number + 4000}", f"{w.review(level)} {w.review(level)}", grade])
    book.save(folder / "essays.xlsx")
    return folder / "essays.xlsx"


@prepared("regression", ["description"], ["price"], traps=("ids",))
def prices(folder, w):
    worth = {thing: 10 + 25 * place for place, thing in enumerate(THINGS)}
    rows = []
    for number in range(400):
        thing = w.any(THINGS)
        cost = worth[thing] * w.rng.uniform(0.8, 1.25)
        rows.append(
            (
                f"SKU{number * 13:06}",
                f"A {w.any(['used', 'new', 'sturdy'])} {thing} from {w.any(PLACES)}",
                f"{cost:.2f}",
            )
        )
    return table(folder / "offers.csv.gz", ["sku", "description", "price"], rows)


@prepared("regression", ["column_1", "column_2"], ["column_3"], traps=("several text columns",), group="column_1")
def scored_pairs_without_header(folder, w):
    rows = []
    for _ in range(300):
        one, share = w.filler(), w.rng.random()
        two = " ".join(word if w.rng.random() < share else w.any(THINGS) for word in one.split())
        rows.append((one, two, f"{5 * share:.2f}"))
    return table(folder / "pairs.tsv", None, rows, "\t")


@prepared("regression", ["request"], ["minutes"], traps=("numbers as labels", "index column"))
def durations(folder, w):
    base = {"billing": 20, "shipping": 45, "technical": 150, "sales": 80}
    rows = []
    for number in range(350):
        name, text = w.ticket()
        rows.append((number + 1, text, max(3, round(w.rng.gauss(base[name], 15)))))
    return table(folder / "durations.csv", ["no", "request", "minutes"], rows)


@prepared("multi-label-classification", ["body"], ["topics"], traps=("ids",))
def lists_of_topics(folder, w):
    rows = []
    for number in range(240):
        chosen = w.rng.sample(sorted(DEPARTMENTS), w.rng.choice([1, 1, 2, 3]))
        body = " ".join(w.text(DEPARTMENTS[name], 1, 1, 1.0) for name in chosen)
        rows.append({"id": f"doc-{number:05}", "body": body, "topics": chosen})
    return lines(folder / "topics.jsonl", rows)


@prepared("multi-label-classification", ["plot"], ["genres"])
def genres_in_one_text(folder, w):
    words = {
        "comedy": ["a funny mistake"],
        "drama": ["tears and silence"],
        "horror": ["a haunted house"],
        "crime": ["a heist"],
    }
    rows = []
    for _ in range(260):
        chosen = w.rng.sample(sorted(words), w.rng.choice([1, 2, 2, 3]))
        rows.append((" ".join(w.text(words[name], 1, 1, 1.0) for name in chosen), "|".join(chosen)))
    return table(folder / "films.csv", ["plot", "genres"], rows)


@prepared(
    "multi-label-classification", ["comment"], ["toxic", "threat", "insult", "spam"], traps=("ids", "imbalanced labels")
)
def columns_of_flags(folder, w):
    words = {"toxic": "this is trash", "threat": "I will find you", "insult": "you fool", "spam": "click here to win"}
    rows = []
    for _ in range(400):
        flags = [int(w.rng.random() < 0.15) for _ in words]
        said = [phrase for phrase, flag in zip(words.values(), flags, strict=True) if flag]
        rows.append((f"{w.rng.getrandbits(64):016x}", f"{w.filler()}. {'. '.join(said)}", *flags))
    return table(folder / "toxicity.csv", ["id", "comment", *words], rows)


def tagged(w):
    person, place, company = w.any(PEOPLE), w.any(PLACES), w.any(COMPANIES).split()
    words = [
        (person, "B-PER"),
        ("works", "O"),
        ("for", "O"),
        *[(word, "BI"[n > 0] + "-ORG") for n, word in enumerate(company)],
    ]
    words += [("in", "O"), (place, "B-LOC")] if w.rng.random() < 0.7 else [("again", "O")]
    return [*words, *((word, "O") for word in w.filler().split() if word not in PEOPLE + PLACES)]


@prepared("token-classification", ["words"], ["tags"])
def conll(folder, w):
    text = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in tagged(w)) for _ in range(120))
    (folder / "names.conll").write_text(text + "\n", encoding="utf-8")
    return folder / "names.conll"


@prepared("token-classification", ["tokens"], ["ner"], traps=("ids",))
def tokens_beside_parts_of_speech(folder, w):
    rows = []
    for number in range(150):
        pairs = tagged(w)
        pos = ["NOUN" if word[0].isupper() else "X" for word, _ in pairs]
        rows.append({"id": str(number), "tokens": [a for a, _ in pairs], "pos": pos, "ner": [b for _, b in pairs]})
    return lines(folder / "tokens.jsonl", rows)


@prepared("token-classification", ["text"], ["entities"])
def marked_spans(folder, w):
    rows = []
    for _ in range(140):
        person, place = w.any(PEOPLE), w.any(PLACES)
        text = f"Yesterday {person} flew to {place}. {w.filler()}."
        spans = [
            {"start": text.index(each), "end": text.index(each) + len(each), "label": kind}
            for each, kind in ((person, "person"), (place, "place"))
        ]
        rows.append({"text": text, "entities": spans, "annotator": w.any(["k1", "k2"])})
    return lines(folder / "spans.jsonl", rows)


def asked(w):
    person, place, thing = w.any(PEOPLE), w.any(PLACES), w.any(THINGS)
    passage = (
        f"{w.filler()}. In spring {person} moved to {place} and opened a shop for every kind of {thing}. {w.filler()}."
    )
    return passage, [(f"Where did {person} move to?", place), (f"Who opened a shop in {place}?", person)]


@prepared("question-answering", ["question", "context"], ["answers"], group="context")
def articles_of_questions(folder, w):
    articles = []
    for number in range(40):
        passage, pairs = asked(w)
        questions = [
            {
                "id": f"{number}-{place}",
                "question": question,
                "answers": [{"text": answer, "answer_start": passage.index(answer)}],
            }
            for place, (question, answer) in enumerate(pairs)
        ]
        articles.append({"title": f"Article {number}", "paragraphs": [{"context": passage, "qas": questions}]})
    (folder / "questions.json").write_text(json.dumps({"version": "1", "data": articles}), encoding="utf-8")
    return folder / "questions.json"


@prepared("question-answering", ["question", "passage"], ["answer"], traps=("several text columns",))
def answers_as_text(folder, w):
    rows = []
    for number in range(200):
        passage, pairs = asked(w)
        rows.append((f"q{number:04}", passage, *w.any(pairs)))
    return table(folder / "faq.csv", ["qid", "passage", "question", "answer"], rows)


@prepared("multiple-choice", ["question", "choices"], ["answer"], traps=("numbers as labels",))
def choices_in_a_list(folder, w):
    rows = []
    for _ in range(200):
        place = w.any(PLACES)
        choices = w.rng.sample(PLACES, 4)
        if place not in choices:
            choices[w.rng.randrange(4)] = place
        question = f"{w.any(PEOPLE)} lives at the airport of {place}. Which city is nearest?"
        rows.append({"question": question, "choices": choices, "answer": choices.index(place)})
    return lines(folder / "quiz.jsonl", rows)


@prepared("multiple-choice", ["question", "A", "B", "C", "D"], ["correct"], traps=("ids", "several text columns"))
def choices_in_columns(folder, w):
    rows = []
    for number in range(220):
        choices = [f"a {thing} of {w.any(COMPANIES)}" for thing in w.rng.sample(THINGS, 4)]
        right = w.rng.randrange(4)
        question = f"Which of them did {w.any(PEOPLE)} take, who wanted {choices[right].partition(' of ')[0]}?"
        rows.append((f"item_{number}", question, *choices, "ABCD"[right]))
    return table(folder / "exam.csv", ["id", "question", "A", "B", "C", "D", "correct"], rows)


@prepared("chat", ["messages"], traps=("nested messages", "ids"))
def conversations(folder, w):
    rows = []
    for number in range(90):
        turns = [{"role": "system", "content": "You are a helpful assistant of a shop."}]
        for _ in range(w.rng.randint(1, 3)):
            name, text = w.ticket()
            turns += [{"role": "user", "content": text}, {"role": "assistant", "content": f"I pass it on to {name}."}]
        rows.append({"conversation_id": f"conv-{number}", "lang": "en", "messages": turns})
    return lines(folder / "chats.jsonl", rows)


@prepared("chat", ["dialogue"], traps=("nested messages",))
def conversations_as_text_in_a_database(folder, w):
    database = sqlite3.connect(folder / "chats.db")
    database.execute("CREATE TABLE talks (nr INTEGER, dialogue TEXT, rating INTEGER)")
    for number in range(80):
        name, text = w.ticket()
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": f"That is for {name}, thank you."}]
        database.execute("INSERT INTO talks VALUES (?, ?, ?)", (number, json.dumps(turns), w.rng.randint(1, 5)))
    database.commit()
    database.close()
    return folder / "chats.db"


@prepared("chat", ["prompt"], ["chosen", "rejected"], traps=("several text columns",))
def better_and_worse(folder, w):
    rows = []
    for _ in range(120):
        name, text = w.ticket()
        rows.append(
            {"prompt": text, "chosen": f"Our {name} team will help you today.", "rejected": f"No. {w.any(POOR)}."}
        )
    return lines(folder / "preferences.jsonl", rows)


@prepared("language", ["article"], traps=("ids", "long texts"))
def texts_alone(folder, w):
    rows = [(f"a{number:05}", f"2023-07-{number % 30 + 1:02}", w.text(FINE, 10, 40)) for number in range(150)]
    content = dict(zip(("key", "published", "article"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(values) for name, values in content.items()}), folder / "articles.parquet")
    return folder / "articles.parquet"


@prepared("embedding", ["anchor", "positive", "negative"], traps=("several text columns",))
def triplets(folder, w):
    rows = []
    for _ in range(150):
        name, text = w.ticket()
        rows.append({"anchor": text, "positive": f"It is about {w.any(DEPARTMENTS[name])}.", "negative": w.filler()})
    return lines(folder / "triplets.jsonl", rows)


@prepared("seq2seq", ["document"], ["summary"], family="encoder-decoder", traps=("long texts", "index column"))
def summaries(folder, w):
    rows = []
    for number in range(140):
        name, text = w.ticket()
        rows.append(
            {
                "number": number,
                "document": f"{text} {w.text(FINE, 12, 30)}",
                "summary": f"{w.any(PEOPLE)} of {w.any(COMPANIES)} writes to {name}: {w.any(DEPARTMENTS[name])}.",
            }
        )
    (folder / "summaries.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "summaries.json"


@prepared("label-words", ["text"], ["intent"], family="decoder")
def few_of_each_label(folder, w):
    rows = [(w.text(DEPARTMENTS[name], 1, 1, 1.0), name) for _ in range(6) for name in sorted(DEPARTMENTS)]
    return table(folder / "few.csv", ["text", "intent"], rows)
