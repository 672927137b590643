"use strict";
(() => {
  // videos of a card play and seek together
  const link = (card) => {
    const button = card.querySelector("button.together");
    const videos = [...card.querySelectorAll("video")];
    if (!button || videos.length < 2 || button.dataset.linked) { return; }
    button.dataset.linked = "1";
    button.hidden = false;
    let together = false;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      together = !together;
      button.textContent = together ? "Pause all" : "Play together";
      button.setAttribute("aria-pressed", String(together));
      for (const video of videos) {
        if (together) { video.currentTime = videos[0].currentTime; video.play().catch(() => {}); } else { video.pause(); }
      }
    });
    for (const video of videos) {
      video.addEventListener("seeked", () => {
        for (const other of videos) {
          if (together && other !== video && Math.abs(other.currentTime - video.currentTime) > 0.2) {
            other.currentTime = video.currentTime;
          }
        }
      });
    }
  };
  const linkAll = () => document.querySelectorAll(".card").forEach(link);
  linkAll();

  // parts of the page that have changed on the server are replaced, the others are left as they are
  const parts = () => [...document.querySelectorAll("[data-is-live]")];
  if (!parts().length) { return; }
  const isInUse = (part) => part.contains(document.activeElement) && document.activeElement !== document.body
    || [...part.querySelectorAll("video")].some((video) => !video.paused);
  const status = document.getElementById("live-status");
  let wait = 2000;
  const update = async () => {
    try {
      const address = new URL(location.href);
      address.searchParams.set("part", "live");
      const answer = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
      if (answer.ok) {
        const found = await answer.json();
        for (const part of parts()) {
          const now = found.sections[part.dataset.live];
          if (now && now.digest !== part.dataset.digest && !isInUse(part)) {
            part.innerHTML = now.html;
            part.dataset.digest = now.digest;
          }
        }
        linkAll();
        if (status && found.said !== status.textContent) { status.textContent = found.said; }
        if (!found.isLive) { return; }
        wait = 2000;
      } else { wait = Math.min(wait * 2, 30000); }
    } catch { wait = Math.min(wait * 2, 30000); }
    setTimeout(update, document.hidden ? Math.max(wait, 10000) : wait);
  };
  setTimeout(update, wait);
})();
