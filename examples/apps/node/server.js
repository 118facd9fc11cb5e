const express = require("express");

const app = express();
const port = Number(process.env.PORT ?? 8080);

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hello from Node</title>
<style>
  body { font: 1.25rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto; padding: 0 1.5rem; }
  code { color: #276749; }
</style>
<h1>Hello from Node</h1>
<p>Express answers on port ${port}. Ask <code>/time</code> for the time.</p>
</html>
`;

app.get("/", (_request, response) => response.send(page));
app.get("/time", (_request, response) => response.json({ time: new Date().toISOString() }));

const server = app.listen(port, () => console.log(`listening on ${port}`));

// Answer what has begun, then leave. Idle connections would keep the server open.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
