#!/usr/bin/env python3
"""Each rule of tidy.py, on a tree that breaks it and one that does not."""
import contextlib
import io
import os
import tempfile
import unittest

import tidy


class Tidy(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = self.folder.name

    def tearDown(self):
        self.folder.cleanup()

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)

    def run_subject(self, subject):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            tidy.run(subject, self.root)
        return out.getvalue()

    def breaks(self, subject, words, files):
        for path, text in files.items():
            self.write(path, text)
        self.assertIn(words, self.run_subject(subject))

    def passes(self, subject, files):
        for path, text in files.items():
            self.write(path, text)
        self.assertEqual(self.run_subject(subject), "")

    def test_functions(self):
        body = "    x();\n" * 68
        self.passes("functions", {"common/a.c": "int a(void)\n{\n" + body + "}\n" +
                                  "struct s {\n" + "    int x;\n" * 80 + "};\n"})
        self.breaks("functions", "common/b.c: long_one: line 3: 71 lines",
                    {"common/b.c": "static int\nlong_one(int (*f)(void))\n{\n" + body + "    y();\n}\n"})

    def test_files(self):
        self.passes("files", {"rdma/a.c": "\n" * 800})
        self.breaks("files", "rdma/b.c: 801 lines", {"rdma/b.c": "\n" * 801})

    def test_calls(self):
        self.passes("calls", {"common/a.c": "/* time(0) */ x = \"rand()\"; f->time(1); o.sleep(1); uptime(2);\n"
                              "_Static_assert(1, \"\"); time_t time; // sleep(1)\n",
                              "common/rng.c": "getrandom(p, n, 0);\n",
                              "tests/unit/a.c": "sleep(1);\n"})
        self.breaks("calls", "services/osd/b.c: time: line 2", {"services/osd/b.c": "\nt = time (NULL);\n"})
        self.breaks("calls", "common/c.c: getrandom", {"common/c.c": "getrandom(p, n, 0);\n"})
        self.breaks("calls", "common/rng.c: time", {"common/rng.c": "time(0);\n"})

    def test_floors(self):
        self.passes("floors", {"common/a.h": "#include <stdio.h>\n", "rdma/b.h": '#include "common/a.h"\n',
                               "services/rwm/c.h": '#include "rdma/b.h"\n#include "d.h"\n',
                               "services/rwm/d.h": "", "services/osd/e.c": '#include "services/rwm/c.h"\n',
                               "tests/t.c": '#include "services/osd/e.c"\n'})
        self.breaks("floors", "common/f.c: rdma/b.h: line 1", {"common/f.c": '#include "rdma/b.h"\n'})
        self.breaks("floors", "services/vbs/g.c: services/rwm/c.h",
                    {"services/vbs/g.c": '#include "services/rwm/c.h"\n'})
        self.breaks("floors", "services/osd/h.c: services/mdc/i.h",
                    {"services/osd/h.c": '#include "../mdc/i.h"\n', "services/mdc/i.h": ""})
        self.breaks("floors", "rdma/j.c: tests/k.h", {"rdma/j.c": '#include "tests/k.h"\n', "tests/k.h": ""})
        self.breaks("floors", "services/new/l.c: is in no room", {"services/new/l.c": ""})

    def test_libraries(self):
        self.passes("libraries", {"rdma/a.c": "#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n",
                                  "common/device/b.c": "#include <liburing.h>\n"})
        self.breaks("libraries", "services/osd/c.c: rdma/rdma_cma.h",
                    {"services/osd/c.c": "#include <rdma/rdma_cma.h>\n"})
        self.breaks("libraries", "common/d.c: libpmem.h", {"common/d.c": "#include <libpmem.h>\n"})

    def test_headers(self):
        self.passes("headers", {"common/a.h": "#ifndef A\n#define A\nstruct a {\n    int x;\n};\n#endif\n"})
        self.breaks("headers", "common/b.h: does not compile alone",
                    {"common/b.h": "#ifndef B\n#define B\nuint32_t b(void);\n#endif\n"})
        self.breaks("headers", "common/c.h: does not compile alone", {"common/c.h": "struct c {\n    int x;\n};\n"})

    def test_leftovers(self):
        self.passes("leftovers", {"common/a.c": 'log_debug(env, "x", ""); /* DEBUG level */\n'})
        self.breaks("leftovers", "common/b.c: line 2", {"common/b.c": "\n/* TO" "DO: later */\n"})
        self.breaks("leftovers", "common/c.c: line 1", {"common/c.c": 'printf("DEBUG %d\\n", x);\n'})

    def test_exceptions(self):
        self.write("common/a.c", "sleep(1);\n")
        self.passes("calls", {"tests/tidy/exceptions.txt": "calls common/a.c sleep until it has a timer\n"})
        self.breaks("calls", "not needed any more", {"common/a.c": "\n"})


if __name__ == "__main__":
    unittest.main()
