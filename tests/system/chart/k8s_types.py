"""Kubernetes' types, read from the TypeScript declarations that are made from its published schemas.

Only what such declarations contain is understood; anything else is an error, so that nothing is checked by being skipped.
"""
import os
import re

TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|[A-Za-z_$][\w$]*|\.\.\.|[{}\[\]<>():;,|?&.=])')


class Types:
    """The declared interfaces and aliases of all packages below the folders, by their global names."""

    def __init__(self, folders):
        self.declared = {}  # global name -> ("object", bases, {name: (type, required)}) or a type
        self.kinds = {}  # (apiVersion, kind) -> global name
        for folder in folders:
            for top, _, names in os.walk(folder):
                for name in names:
                    if name.endswith(".d.ts"):
                        self.read(os.path.join(top, name))

    def read(self, path):
        with open(path, encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        local = {}
        for match in re.finditer(r"^export interface (\w+)(?: extends ([\w, ]+))? \{", text, re.M):
            bases = [b.strip() for b in (match.group(2) or "").split(",") if b.strip() not in ("", "TypeMeta")]
            local[match.group(1)] = Parser(text, match.end() - 1, path).object(bases)
        for match in re.finditer(r"^export type (\w+) = ", text, re.M):
            local[match.group(1)] = Parser(text, match.end(), path).type()
        for match in re.finditer(r"^export type \{([^}]*)\}", text, re.M):
            for pair in match.group(1).split(","):
                if " as " in pair:
                    inner, outer = (p.strip() for p in pair.split(" as "))
                    if inner in local:
                        self.declare(outer, local[inner])

    def declare(self, name, what):
        self.declared[name] = what
        if what[0] == "object":
            version, kind = (what[2].get(k, (None,))[0] for k in ("apiVersion", "kind"))
            if version and kind and version[0] == kind[0] == "literal":
                self.kinds[(version[1], kind[1])] = name

    def fields(self, what):
        found = {}
        for base in what[1]:
            found.update(self.fields(self.declared[base]))
        found.update(what[2])
        return found

    def check(self, value, what, at=""):
        """Yields what is wrong with value, a sentence each."""
        kind = what[0]
        if kind == "any":
            return
        if kind == "name":
            if what[1] not in self.declared:
                yield f"{at}: the type {what[1]} is not declared"
            else:
                yield from self.check(value, self.declared[what[1]], at)
        elif kind == "union":
            tries = [list(self.check(value, option, at)) for option in what[1]]
            if all(tries):
                yield min(tries, key=len)[0] if any(o[0] in ("object", "name") for o in what[1]) else \
                    f"{at}: {value!r} is none of {', '.join(str(o[-1]) for o in what[1])}"
        elif kind == "literal":
            if value != what[1]:
                yield f"{at}: {value!r} is not {what[1]!r}"
        elif kind == "list":
            if not isinstance(value, list):
                yield f"{at}: {value!r} is not a list"
                return
            for i, item in enumerate(value):
                yield from self.check(item, what[1], f"{at}[{i}]")
        elif kind == "map":
            if not isinstance(value, dict):
                yield f"{at}: {value!r} is not a map"
                return
            for key, item in value.items():
                if not isinstance(key, str):
                    yield f"{at}: the key {key!r} is not a string"
                yield from self.check(item, what[1], f"{at}.{key}")
        elif kind == "object":
            yield from self.check_object(value, what, at)
        else:
            python = {"string": str, "number": (int, float), "boolean": bool, "null": type(None)}[kind]
            if not isinstance(value, python) or (kind == "number" and isinstance(value, bool)):
                yield f"{at}: {value!r} is not a {kind}"

    def check_object(self, value, what, at):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is not an object"
            return
        fields = self.fields(what)
        for key, item in value.items():
            if key not in fields:
                yield f"{at}: there is no field {key!r}"
            elif item is not None:
                yield from self.check(item, fields[key][0], f"{at}.{key}")
        for key, (_, required) in fields.items():
            if required and value.get(key) is None:
                yield f"{at}: the field {key!r} is missing"


class Parser:
    """Recursive descent over the type at one place of a declaration."""

    def __init__(self, text, at, path):
        self.text, self.at, self.path = text, at, path

    def peek(self):
        match = TOKEN.match(self.text, self.at)
        if not match:
            raise ValueError(f"{self.path}: cannot read {self.text[self.at:self.at + 40]!r}")
        return match.group(1)

    def take(self, expected=None):
        token = self.peek()
        if expected is not None and token != expected:
            raise ValueError(f"{self.path}: {token!r} where {expected!r} should be")
        self.at = TOKEN.match(self.text, self.at).end()
        return token

    def object(self, bases):
        fields = {}
        self.take("{")
        while self.peek() != "}":
            if self.peek() == "[":
                return self.rest_of_map()
            name = self.take()
            name = name[1:-1] if name.startswith('"') else name
            required = self.peek() != "?"
            if not required:
                self.take()
            self.take(":")
            fields[name] = (self.type(), required)
            if self.peek() in ";,":
                self.take()
        self.take("}")
        return ("object", bases, fields)

    def rest_of_map(self):
        self.take("[")
        self.take()
        self.take(":")
        self.take("string")
        self.take("]")
        self.take(":")
        inner = self.type()
        if self.peek() == ";":
            self.take()
        self.take("}")
        return ("map", inner)

    def type(self):
        options = [self.one()]
        while self.peek() == "|":
            self.take()
            options.append(self.one())
        return options[0] if len(options) == 1 else ("union", options)

    def one(self):
        token = self.peek()
        if token == "{":
            inner = self.object([])
        elif token == "(":
            self.take()
            inner = self.type()
            self.take(")")
        else:
            self.take()
            inner = self.named(token)
        while self.peek() == "[":
            self.take()
            self.take("]")
            inner = ("list", inner)
        return inner

    def named(self, token):
        if token.startswith('"'):
            return ("literal", token[1:-1])
        if token in ("string", "number", "boolean", "null"):
            return (token, token)
        if token in ("any", "unknown", "object"):
            return ("any", "any")
        if token in ("Array", "Record"):
            self.take("<")
            if token == "Record":
                self.take("string")
                self.take(",")
            inner = self.type()
            self.take(">")
            return ("list" if token == "Array" else "map", inner)
        return ("name", token)
