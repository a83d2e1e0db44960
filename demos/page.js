() => {
  // Examples and pictures have no names in gradio: give them one, for screen readers.
  const word = navigator.language.startsWith("ko") ? "예시" : "example";
  const name = () =>
    document.querySelectorAll('img[alt=""]').forEach((picture) => {
      const button = picture.closest("button.gallery-item");
      const label = picture.closest(".block")?.querySelector('[data-testid="block-label"], label');
      picture.alt = button
        ? `${word} ${[...button.parentElement.children].indexOf(button) + 1}`
        : label?.innerText.trim() || word;
    });
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}
