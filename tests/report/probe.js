const drag = (canvas, a, b) => { const r = canvas.getBoundingClientRect(); canvas.setPointerCapture = () => {};
  const at = (kind, p) => canvas.dispatchEvent(new PointerEvent(kind, { clientX: r.left + p[0] * r.width, clientY: r.top + p[1] * r.height, pointerId: 1, bubbles: true }));
  at("pointerdown", a); at("pointermove", b); at("pointerup", b); };
const said = { title: document.title, violations: [] };
document.addEventListener("securitypolicyviolation", (e) => said.violations.push(e.violatedDirective));
const ink = (panel) => { const c = panel.canvas, d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n; };
said.ink = panels.map(ink);
drag(panels[0].canvas, [0.6, 0.3], [0.99, 0.5]); draw();
said.histogram = $("picked").textContent; said.least = Math.min(...[...picked].map((i) => P.return[i]));
drag(panels[1].canvas, [0.15, 0.1], [0.5, 0.9]); draw();
said.map = [picked.size, panels[0].area === null, Math.max(...[...picked].map((i) => P.x[i])) < Math.max(...P.x)];
clear(); draw();
const p = panels[2]; p.click(p.X(P.norm[7]), p.Y(P.return[7])); draw();
said.detail = $("detail").textContent; said.images = document.images.length; said.scripts = document.scripts.length;
[...$("legend").children][0].click(); draw(); said.hidden = $("picked").textContent;
try { eval("said.eval = true"); } catch (error) { said.eval = false; }
const image = new Image(); image.src = "http://127.0.0.1:9/x.png";
const script = document.createElement("script"); script.textContent = "said.injected = true"; document.body.append(script);
setTimeout(() => { const out = document.createElement("output"); out.textContent = JSON.stringify(said); document.body.append(out); }, 300);
