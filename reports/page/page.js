// Plays a recording from a place that a claim or a drawing points to. The page reads the same without it.
for (const button of document.querySelectorAll("button.hear")) {
  button.addEventListener("click", () => {
    const call = document.getElementById(button.dataset.call);
    call.open = true;
    call.scrollIntoView({ block: "center" });
    play(call, Number(button.dataset.at));
  });
}
for (const call of document.querySelectorAll("details.call")) {
  const audio = call.querySelector("audio");
  const drawing = call.querySelector("svg");
  if (!audio || !drawing) continue;
  const head = drawing.querySelector(".head");
  for (const part of drawing.querySelectorAll(".seek")) {
    part.addEventListener("click", () => play(call, Number(part.dataset.at)));
  }
  const follow = () => {
    const x = Number(drawing.dataset.audioX) + audio.currentTime * Number(drawing.dataset.pxPerS);
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
    head.style.visibility = audio.currentTime > 0 ? "visible" : "hidden";
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", follow);
}
function play(call, at) {
  const audio = call.querySelector("audio");
  if (!audio) return;
  audio.currentTime = at;
  audio.play();
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
