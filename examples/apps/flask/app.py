"""A guest counter: the smallest app that does something."""

from itertools import count

from flask import Flask, render_template_string

app = Flask(__name__)
visits = count(1)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hello from Flask</title>
<style>
  body { font: 1.25rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto; padding: 0 1.5rem; }
  b { color: #2b6cb0; }
</style>
<h1>Hello from Flask</h1>
<p>This process has answered <b>{{ visits }}</b> {{ "visit" if visits == 1 else "visits" }}.</p>
</html>
"""


@app.get("/")
def home():
    return render_template_string(PAGE, visits=next(visits))


if __name__ == "__main__":
    import os

    app.run(port=int(os.environ.get("PORT", 8080)))
