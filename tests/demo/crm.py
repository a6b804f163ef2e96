#!/usr/bin/env python3
"""Rows of a made-up CRM, always the same for the same scale.

As a program it prints one table in PostgreSQL's COPY text format:
`crm.py TABLE SCALE`. Scale 1 gives a plain dump of about 1 GB. The text is
built of phrases that recur as they do in people's writing, and the identifiers
are random, so that it compresses neither better nor worse than a real dump.
"""

import bisect
import os
import random
import subprocess
import sys

SCHEMA = """
create table customers (
    id bigint not null, external_id uuid not null, name text not null, city text,
    phone text, email text, created_at timestamptz not null, settings jsonb not null);
create table contacts (
    id bigint not null, customer_id bigint not null, given_name text, family_name text,
    email text, phone text, role text, token text, updated_at timestamptz);
create table deals (
    id bigint not null, customer_id bigint not null, title text not null, stage text not null,
    amount numeric(12,2), currency text, closes_on date, updated_at timestamptz);
create table activities (
    id bigserial not null, deal_id bigint, contact_id bigint, kind text not null,
    note text, happened_at timestamptz not null);
create table events (
    id bigint not null, customer_id bigint not null, payload jsonb not null,
    received_at timestamptz not null);
create table accounts (
    aid bigint not null, bid bigint, abalance bigint, filler character(84));
"""

KEYS = """
alter table customers add primary key (id);
alter table contacts add primary key (id);
alter table deals add primary key (id);
alter table activities add primary key (id);
alter table events add primary key (id);
alter table accounts add primary key (aid);
create index contacts_by_customer on contacts (customer_id);
create index deals_by_customer on deals (customer_id);
select setval('activities_id_seq', (select max(id) from activities));
"""

# A day of work: updates and deletes scattered over all pages, rows added at the end.
DAY_TWO = """
update customers set settings = jsonb_set(settings, '{seen}', to_jsonb(id)) where id % 29 = 3;
update contacts set phone = '+49 ' || (id * 7919 % 100000000), updated_at = updated_at + interval '1 day'
    where id % 41 = 7;
delete from contacts where id % 1009 = 11;
update deals set stage = 'won', updated_at = updated_at + interval '1 day' where id % 37 = 5;
update activities set note = note || ' Done, ' || md5(id::text) || '.' where id % 113 = 17;
delete from activities where id % 2003 = 23;
insert into activities (deal_id, contact_id, kind, note, happened_at)
    select deal_id, contact_id, 'mail', md5(id::text) || ' ' || reverse(note), happened_at + interval '90 days'
    from activities where id % 61 = 29 order by id;
update accounts set abalance = abalance + aid % 1000 - 500 where aid % 23 = 9;
"""

ROWS_AT_SCALE_ONE = {
    "customers": 150_000,
    "contacts": 450_000,
    "deals": 450_000,
    "activities": 950_000,
    "events": 500_000,
    "accounts": 900_000,
}

_SYLLABLES = (
    "an ar be ber da de der die do ein en er for ge gen he her in ing is ja ka ke la le lo ma me mi"
    " mo na ne no nu on or pa po ra re ri ro sa sch se si so sta ta te ti to tra tu un va ve vo we wi"
    " zu \u00e4n \u00fcb \u00f6f"
).split()
_STAGES = ["new", "qualified", "proposal", "negotiation", "won", "lost"]
_KINDS = ["call", "mail", "meeting", "note", "task"]
_ROLES = ["buyer", "owner", "assistant", "engineer", "accounting", ""]
_HOSTS = ["example.com", "example.org", "mail.example.net", "firma.example"]


class _Source:
    """Random values in the shapes that the tables need."""

    def __init__(self, table, phrases):
        self.random = random.Random(f"cairn demo {table}")
        words_random = random.Random("cairn demo words")
        self.words = [
            "".join(words_random.choices(_SYLLABLES, k=words_random.randint(1, 4)))
            for _ in range(9000)
        ]
        self.names = [word.capitalize() for word in self.words[:4000]]
        self.days = [
            f"{year}-{month:02}-{day:02}"
            for year in range(2021, 2026)
            for month in range(1, 13)
            for day in range(1, 29)
        ]
        self.clock = [f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}" for s in range(86400)]
        self.phrases = self._phrases(phrases)

    def _phrases(self, count):
        # Frequent phrases, rare phrases and words of their own: as in mail between people.
        common = [1.0 / (rank + 8) for rank in range(len(self.words))]
        total, cumulative = 0.0, []
        for weight in common:
            total += weight
            cumulative.append(total)
        distinct = [
            " ".join(self.random.choices(self.words, cum_weights=cumulative, k=length))
            for length in self.random.choices((1, 2, 3, 4, 6, 8, 12), k=20_000)
        ]
        pick = self.random.random
        return [distinct[int(pick() ** 2.5 * len(distinct))] for _ in range(count)]

    def text(self, phrases):
        start = int(self.random.random() * (len(self.phrases) - phrases))
        return " ".join(self.phrases[start : start + phrases])

    def below(self, limit):
        return int(self.random.random() * limit)

    def pick(self, values):
        return values[int(self.random.random() * len(values))]

    def time(self, part):
        """A moment; `part` from 0 to 1 moves through the years, as ids do."""
        day = bisect.bisect_left(range(len(self.days)), part * (len(self.days) - 1))
        return f"{self.days[day]} {self.clock[self.below(86400)]}.{self.below(1000):03}+00"

    def phone(self):
        return f"+49 {self.below(900) + 100} {self.below(10_000_000)}"

    def hex(self, bits):
        return f"{self.random.getrandbits(bits):0{bits // 4}x}"


def _customers(source, count):
    for row in range(1, count + 1):
        name = f"{source.pick(source.names)} {source.pick(source.names)}"
        settings = (
            f'{{"plan": "{source.pick(("free", "team", "business"))}", "seats": {source.below(400)}, '
            f'"locale": "{source.pick(("de", "en", "fr", "pl"))}", "api_key": "{source.hex(128)}", '
            f'"tags": ["{source.pick(source.words)}", "{source.pick(source.words)}"]}}'
        )
        yield (
            f"{row}\t{source.hex(128)}\t{name} GmbH\t{source.pick(source.names)}\t{source.phone()}\t"
            f"info@{name.replace(' ', '-').lower()}.example\t{source.time(row / count)}\t{settings}\n"
        )


def _contacts(source, count):
    customers = max(1, count // 3)
    for row in range(1, count + 1):
        given, family = source.pick(source.names), source.pick(source.names)
        yield (
            f"{row}\t{source.below(customers) + 1}\t{given}\t{family}\t"
            f"{given}.{family}@{source.pick(_HOSTS)}\t{source.phone()}\t{source.pick(_ROLES)}\t"
            f"{source.hex(64)}\t{source.time(row / count)}\n"
        )


def _deals(source, count):
    customers = max(1, count // 3)
    for row in range(1, count + 1):
        yield (
            f"{row}\t{source.below(customers) + 1}\t{source.text(3)}\t{source.pick(_STAGES)}\t"
            f"{source.below(9_000_000) / 100:.2f}\tEUR\t{source.pick(source.days)}\t"
            f"{source.time(row / count)}\n"
        )


def _activities(source, count):
    for row in range(1, count + 1):
        # Most notes are short and some are whole mails.
        phrases = 3 + int(source.random.random() ** 3 * 60)
        note = source.text(phrases)
        if phrases > 20:
            note = f"{note[:40]}\\n\\n{note[40:]}\\n-- \\n{source.pick(source.names)}"
        yield (
            f"{row}\t{source.below(count) + 1}\t{source.below(count) + 1}\t{source.pick(_KINDS)}\t"
            f"{note}\t{source.time(row / count)}\n"
        )


def _events(source, count):
    customers = max(1, count // 3)
    for row in range(1, count + 1):
        payload = (
            f'{{"type": "{source.pick(_KINDS)}.{source.pick(("created", "changed", "closed"))}", '
            f'"request": "{source.hex(128)}", "agent": "{source.pick(source.words)}/{source.below(90)}.'
            f'{source.below(20)}", "host": "10.{source.below(256)}.{source.below(256)}.'
            f'{source.below(256)}", "duration_us": {source.below(2_000_000)}, '
            f'"subject": "{source.text(4)}", "changes": {{"amount": [{source.below(100_000)}, '
            f'{source.below(100_000)}], "owner": "{source.pick(source.names)}"}}}}'
        )
        yield f"{row}\t{source.below(customers) + 1}\t{payload}\t{source.time(row / count)}\n"


def _accounts(source, count):
    for row in range(1, count + 1):
        yield f"{row}\t{row // 100_000 + 1}\t{source.below(20_001) - 10_000}\t\n"


_TABLES = {
    "customers": _customers,
    "contacts": _contacts,
    "deals": _deals,
    "activities": _activities,
    "events": _events,
    "accounts": _accounts,
}


def print_table(table, scale):
    """Prints the rows of `table` at `scale` in COPY's text format."""
    count = max(100, int(ROWS_AT_SCALE_ONE[table] * scale))
    source = _Source(table, phrases=400_000 if table == "activities" else 50_000)
    batch = []
    with open(sys.stdout.fileno(), "w", encoding="utf-8", buffering=1 << 20) as out:
        for line in _TABLES[table](source, count):
            batch.append(line)
            if len(batch) == 1000:
                out.write("".join(batch))
                batch.clear()
        out.write("".join(batch))


def load(server, database, scale):
    """Makes `database` on `server` and fills it, on as many cores as there are."""
    subprocess.run(server.client("createdb", database), check=True)
    server.query(database, SCHEMA)
    # The greatest tables first, so that none is left over for one core alone.
    waiting = ["activities", "events", "contacts", "accounts", "customers", "deals"]
    running = []
    try:
        while waiting or running:
            while waiting and len(running) < max(2, os.cpu_count() or 1):
                running.append(_start_loading(server, database, waiting.pop(0), scale))
            _wait_for_one(running)
    finally:
        for _, processes in running:
            for process in processes:
                process.kill()
                process.wait()
    server.query(database, KEYS)


def _start_loading(server, database, table, scale):
    rows = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__), table, str(scale)], stdout=subprocess.PIPE
    )
    # A table emptied in the same transaction is filled without a log.
    copy = ["-1", "-c", f"truncate {table}", "-c", f"copy {table} from stdin with (freeze)"]
    psql = subprocess.Popen(server.psql(database, *copy), stdin=rows.stdout)
    rows.stdout.close()
    return table, (rows, psql)


def _wait_for_one(running):
    table, processes = running.pop(0)
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise RuntimeError(f"loading table {table} failed")


def change(server, database):
    """Makes the changes of one day in `database`."""
    server.query(database, DAY_TWO)


if __name__ == "__main__":
    print_table(sys.argv[1], float(sys.argv[2]))
